module countersign.example/interop/go_tlog

go 1.19

require golang.org/x/mod v0.7.0
