# A time-stamping authority of `openssl ts`, for the scripts that need one: a root, one below it, and signers good and bad. Sourced.
#
#   make_authority DIR      root.pem (RSA), other-root.pem, and the signers rsa, p256, p384, late (over since 2021), server (not for time stamps), both (for two things)
#   stamp DIR SIGNER IN.tsq OUT.tsr [MORE…]      what the authority answers; MORE goes to `openssl ts -reply`

certificate() {     # name, subject, issuer or its own, extensions; its key is there; valid for a century, or as START and END say
    local name=$1 subject=$2 issuer=$3 extensions=$4
    openssl req -new -key "$name.key" -subj "$subject" -out "$name.csr"
    printf '%s\n' "$extensions" >"$name.ext"
    if [ "$issuer" = "$name" ]; then
        set -- -selfsign -keyfile "$name.key"
    else
        set -- -cert "$issuer.pem" -keyfile "$issuer.key"
    fi
    openssl ca -batch -config ca.cnf "$@" -in "$name.csr" -out "$name.pem" -notext -extfile "$name.ext" -md sha256 \
        -startdate "${START:-20200101000000Z}" -enddate "${END:-21200101000000Z}" 2>ca.log || { cat ca.log >&2; return 1; }
}

make_authority() (
    mkdir -p "$1"
    cd "$1"
    : >index.txt
    echo 01 >serial
    cat >ca.cnf <<'CNF'
[ca]
default_ca = here
[here]
database = index.txt
serial = serial
new_certs_dir = .
policy = any
unique_subject = no
[any]
organizationName = optional
commonName = supplied
CNF
    for name in root other-root rsa late server both; do openssl genrsa -out $name.key 2048 2>/dev/null; done
    for name in middle p256; do openssl ecparam -genkey -name prime256v1 -noout -out $name.key; done
    openssl ecparam -genkey -name secp384r1 -noout -out p384.key
    local authority=$'basicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign\nsubjectKeyIdentifier = hash'
    local stamps=$'basicConstraints = CA:false\nkeyUsage = critical, digitalSignature\nextendedKeyUsage = critical, timeStamping'
    certificate root '/O=Example Time/CN=Example Time Root' root "$authority"
    certificate other-root '/O=Other Time/CN=Other Time Root' other-root "$authority"
    certificate middle '/O=Example Time/CN=Example Time Issuer' root "$authority"
    certificate rsa '/O=Example Time/CN=Example Time Stamps RSA' root "$stamps"
    certificate p256 '/O=Example Time/CN=Example Time Stamps P-256' middle "$stamps"
    certificate p384 '/O=Example Time/CN=Example Time Stamps P-384' middle "$stamps"
    END=20210101000000Z certificate late '/O=Example Time/CN=Example Time Stamps of 2020' root "$stamps"
    certificate server '/O=Example Time/CN=www.example' root "${stamps/timeStamping/serverAuth}"
    certificate both '/O=Example Time/CN=Example Time Stamps and Code' root "${stamps/timeStamping/timeStamping, codeSigning}"
    echo 01 >tsa-serial
    cat >tsa.cnf <<'CNF'
[tsa]
default_tsa = here
[here]
serial = tsa-serial
default_policy = 1.3.6.1.4.1.55555.1
digests = sha1, sha256, sha384, sha512
accuracy = secs:1, millisecs:500, microsecs:100
ess_cert_id_chain = no
ess_cert_id_alg = sha256
crypto_device = builtin
[sha1]
serial = tsa-serial
default_policy = 1.3.6.1.4.1.55555.1
digests = sha1, sha256
ess_cert_id_alg = sha1
crypto_device = builtin
CNF
)

stamp() {           # directory, signer, query, answer, further arguments
    local directory=$1 signer=$2 query answer
    query=$(realpath "$3")
    answer=$(realpath -m "$4")
    shift 4
    (cd "$directory"; openssl ts -reply -config tsa.cnf -queryfile "$query" -inkey "$signer.key" -signer "$signer.pem" -chain middle.pem -sha256 "$@" -out "$answer") 2>stamp.log || { cat stamp.log >&2; return 1; }
}
