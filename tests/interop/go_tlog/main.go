// go_tlog reads a log of Countersign with the code that Go's own checksum database is read with: golang.org/x/mod/sumdb, packages note and tlog.
// It is told the log's vkey, and takes the log over HTTP, from a bundle, and from the small files of one proof:
//
//	go_tlog -vkey VKEY -url http://127.0.0.1:7228/logs/orders -bundle whole -proof one.tlog-proof -growth growth.tlog-consistency
//
// One line on stdout for each thing shown. What does not hold ends it with exit code 1; so does an altered copy that still holds.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight = 8 // 256 hashes in a whole tile
	tileWidth  = 1 << tileHeight
	entryBytes = 118
)

func main() {
	vkey := flag.String("vkey", "", "the log's verifier key")
	url := flag.String("url", "", "where the log is published")
	bundle := flag.String("bundle", "", "folder of an evidence bundle of the whole log")
	proof := flag.String("proof", "", "a .tlog-proof, with its .entry beside it")
	growth := flag.String("growth", "", "a .tlog-consistency, with its .checkpoint beside it")
	flag.Parse()
	if *vkey == "" || *url == "" || *bundle == "" || *proof == "" || *growth == "" || flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}
	verifier, err := note.NewVerifier(*vkey)
	if err != nil {
		fail("the vkey", err)
	}
	log := &trusted{verifier}
	shown(log.wholeLog("the published log", overHTTP(*url)))
	shown(log.wholeLog("the bundle", fromFolder(filepath.Join(*bundle, "log"))))
	shown(log.oneEntry(readFile(*proof), readFile(stem(*proof)+".entry")))
	shown(log.growth(readFile(*growth), readFile(stem(*growth)+".checkpoint")))
}

func shown(line string, err error) {
	if err != nil {
		fail(line, err)
	}
	fmt.Println(line)
}

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "go_tlog: %s: %v\n", what, err)
	os.Exit(1)
}

func readFile(path string) []byte {
	data, err := os.ReadFile(path)
	if err != nil {
		fail(path, err)
	}
	return data
}

func stem(path string) string { return strings.TrimSuffix(path, filepath.Ext(path)) }

// trusted is a log by the one thing that is known of it from elsewhere: its key.
type trusted struct{ verifier note.Verifier }

// checkpoint opens a signed note and reads the tree from its three lines. tlog.ParseTree is for the checksum database's header alone.
func (log *trusted) checkpoint(signed []byte) (tlog.Tree, error) {
	opened, err := note.Open(signed, note.VerifierList(log.verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return tlog.Tree{}, errors.New("the checkpoint has not three lines")
	}
	if lines[0] != log.verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("the origin is %q", lines[0])
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 1 || strconv.FormatInt(size, 10) != lines[1] {
		return tlog.Tree{}, fmt.Errorf("the size is %q", lines[1])
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// source gives the bytes of a path below the log's prefix.
type source func(path string) ([]byte, error)

func overHTTP(url string) source {
	return func(path string) ([]byte, error) {
		answer, err := http.Get(url + "/" + path)
		if err != nil {
			return nil, err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %s", path, answer.Status)
		}
		return io.ReadAll(answer.Body)
	}
}

func fromFolder(folder string) source {
	return func(path string) ([]byte, error) { return os.ReadFile(filepath.Join(folder, filepath.FromSlash(path))) }
}

// files are a log's tiles and entry bundles by their path. As a tlog.TileReader they are what tlog asks for hashes.
type files map[string][]byte

func (f files) Height() int                     { return tileHeight }
func (f files) SaveTiles([]tlog.Tile, [][]byte) {}
func (f files) ReadTiles(tiles []tlog.Tile) (data [][]byte, err error) {
	for _, tile := range tiles {
		found, is := f[path(tile)]
		if !is || len(found) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s: there is no such tile of %d hashes", path(tile), tile.W)
		}
		data = append(data, found)
	}
	return data, nil
}

// path is a tile's path as tlog-tiles has it: without the height that tlog writes, and with its name for entries.
func path(tile tlog.Tile) string {
	within := strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight))
	if strings.HasPrefix(within, "data/") {
		within = "entries" + strings.TrimPrefix(within, "data")
	}
	return "tile/" + within
}

// tilesOf are the tiles that a tree has: of the partial ones, which tlog lists in every width, the widest.
func tilesOf(tree tlog.Tree) (tiles []tlog.Tile) {
	for _, tile := range tlog.NewTiles(tileHeight, 0, tree.N) {
		if last := len(tiles) - 1; last >= 0 && tiles[last].L == tile.L && tiles[last].N == tile.N {
			tiles[last] = tile
		} else {
			tiles = append(tiles, tile)
		}
	}
	return tiles
}

// wholeLog takes everything of a log from one source, checks it, and then checks that each altered copy of it is refused.
func (log *trusted) wholeLog(what string, read source) (string, error) {
	signed, err := read("checkpoint")
	if err != nil {
		return what, err
	}
	tree, err := log.checkpoint(signed)
	if err != nil {
		return what, err
	}
	all := files{}
	for _, tile := range tilesOf(tree) {
		paths := []string{path(tile)}
		if tile.L == 0 {
			tile.L = -1
			paths = append(paths, path(tile))
		}
		for _, one := range paths {
			if all[one], err = read(one); err != nil {
				return what, err
			}
		}
	}
	if err := all.entriesHold(tree); err != nil {
		return what, err
	}
	if err := all.tilesHold(tree); err != nil {
		return what, err
	}
	refused, err := log.alteredNotes(signed)
	if err != nil {
		return what, err
	}
	for name, data := range all {
		step, first, hold := tlog.HashSize, tlog.HashSize/2, all.tilesHold
		if strings.HasPrefix(name, "tile/entries/") {
			step, first, hold = 2+entryBytes, 2+entryBytes/2, all.entriesHold
		}
		for at := first; at < len(data); at += step {
			data[at] ^= 1
			err := hold(tree)
			data[at] ^= 1
			if err == nil {
				return what, fmt.Errorf("%s holds with byte %d altered", name, at)
			}
			refused++
		}
	}
	return fmt.Sprintf("%s: signature, and root of %d entries from them and from the tiles, %d files in all; %d altered copies refused",
		what, tree.N, len(all), refused), nil
}

// entriesHold computes the root from the entries alone.
func (f files) entriesHold(tree tlog.Tree) error {
	entries, err := f.entries(tree.N)
	if err != nil {
		return err
	}
	var leaves []tlog.Hash
	for _, entry := range entries {
		leaves = append(leaves, tlog.RecordHash(entry))
	}
	return rootHolds(tree, leaves)
}

// tilesHold asks tlog for every leaf hash: it leads each tile up to the root. (Version 0.7.0 passes over some, so that a root is computed from what
// it gives.)
func (f files) tilesHold(tree tlog.Tree) error {
	var indexes []int64
	for i := int64(0); i < tree.N; i++ {
		indexes = append(indexes, tlog.StoredHashIndex(0, i))
	}
	leaves, err := tlog.TileHashReader(tree, f).ReadHashes(indexes)
	if err != nil {
		return err
	}
	return rootHolds(tree, leaves)
}

func rootHolds(tree tlog.Tree, leaves []tlog.Hash) error {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) (hashes []tlog.Hash, err error) {
		for _, index := range indexes {
			hashes = append(hashes, stored[index])
		}
		return hashes, nil
	})
	for i, leaf := range leaves {
		hashes, err := tlog.StoredHashesForRecordHash(int64(i), leaf, reader)
		if err != nil {
			return err
		}
		stored = append(stored, hashes...)
	}
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil {
		return err
	}
	if root != tree.Hash {
		return fmt.Errorf("the root is %v, the checkpoint's %v", root, tree.Hash)
	}
	return nil
}

func (f files) entries(size int64) (entries [][]byte, err error) {
	for first := int64(0); first < size; first += tileWidth {
		width := size - first
		if width > tileWidth {
			width = tileWidth
		}
		name := path(tlog.Tile{H: tileHeight, L: -1, N: first / tileWidth, W: int(width)})
		rest := f[name]
		for ; width > 0; width-- {
			if len(rest) < 2 || len(rest) < 2+int(binary.BigEndian.Uint16(rest)) {
				return nil, fmt.Errorf("%s ends within an entry", name)
			}
			end := 2 + int(binary.BigEndian.Uint16(rest))
			entries = append(entries, rest[2:end])
			rest = rest[end:]
		}
		if len(rest) != 0 {
			return nil, fmt.Errorf("%s has more than its entries", name)
		}
	}
	return entries, nil
}

// alteredNotes alters each byte of a checkpoint's text and of its signature's key id and signature, and lets another key of the same name sign it.
func (log *trusted) alteredNotes(signed []byte) (refused int, err error) {
	text := bytes.LastIndex(signed, []byte("\n\n")) + 1
	sign := bytes.LastIndexByte(signed, ' ') + 1
	line, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(string(signed[sign:]), "\n"))
	if err != nil {
		return 0, err
	}
	for at := 0; at < text+len(line); at++ {
		copied := append([]byte{}, signed...)
		if at < text {
			copied[at] ^= 1
		} else {
			other := append([]byte{}, line...)
			other[at-text] ^= 1
			copied = append(copied[:sign], base64.StdEncoding.EncodeToString(other)+"\n"...)
		}
		if _, err := log.checkpoint(copied); err == nil {
			return 0, fmt.Errorf("the checkpoint holds with byte %d of text and signature altered", at)
		}
		refused++
	}
	secret, _, err := note.GenerateKey(rand.Reader, log.verifier.Name())
	if err != nil {
		return 0, err
	}
	stranger, err := note.NewSigner(secret)
	if err != nil {
		return 0, err
	}
	copied, err := note.Sign(&note.Note{Text: string(signed[:text])}, stranger)
	if err != nil {
		return 0, err
	}
	if _, err := log.checkpoint(copied); err == nil {
		return 0, errors.New("the checkpoint holds under the signature of another key")
	}
	return refused + 1, nil
}

// oneEntry reads c2sp.org/tlog-proof@v1 and checks that the entry is where it says.
func (log *trusted) oneEntry(file, entry []byte) (string, error) {
	what := "the proof of one entry"
	head, signed, err := split(file)
	if err != nil {
		return what, err
	}
	if len(head) < 2 || head[0] != "c2sp.org/tlog-proof@v1" || !strings.HasPrefix(head[1], "index ") {
		return what, errors.New("its first two lines are others")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(head[1], "index "), 10, 64)
	if err != nil {
		return what, err
	}
	hashes, err := parseHashes(head[2:])
	if err != nil {
		return what, err
	}
	tree, err := log.checkpoint(signed)
	if err != nil {
		return what, err
	}
	holds := func() error {
		return tlog.CheckRecord(hashes, tree.N, tree.Hash, index, tlog.RecordHash(entry))
	}
	if err := holds(); err != nil {
		return what, err
	}
	refused, err := log.alteredNotes(signed)
	if err != nil {
		return what, err
	}
	more, err := altered(append(bytesOf(hashes), entry), holds)
	if err != nil {
		return what, err
	}
	index++
	if holds() == nil {
		return what, errors.New("it holds for the next index too")
	}
	return fmt.Sprintf("%s: entry %d is in the tree of %d; %d altered copies refused", what, index-1, tree.N, refused+more+1), nil
}

// growth reads the body of a witness's add-checkpoint request and checks that the newer tree continues the older one.
func (log *trusted) growth(file, older []byte) (string, error) {
	what := "the proof of growth"
	head, signed, err := split(file)
	if err != nil {
		return what, err
	}
	before, err := log.checkpoint(older)
	if err != nil {
		return what, err
	}
	after, err := log.checkpoint(signed)
	if err != nil {
		return what, err
	}
	if head[0] != fmt.Sprintf("old %d", before.N) {
		return what, fmt.Errorf("its first line is %q, the older checkpoint's size %d", head[0], before.N)
	}
	hashes, err := parseHashes(head[1:])
	if err != nil {
		return what, err
	}
	holds := func() error { return tlog.CheckTree(hashes, after.N, after.Hash, before.N, before.Hash) }
	if err := holds(); err != nil {
		return what, err
	}
	refused := 0
	for _, one := range [][]byte{signed, older} {
		count, err := log.alteredNotes(one)
		if err != nil {
			return what, err
		}
		refused += count
	}
	count, err := altered(append(bytesOf(hashes), before.Hash[:], after.Hash[:]), holds)
	if err != nil {
		return what, err
	}
	return fmt.Sprintf("%s: the tree of %d continues that of %d; %d altered copies refused", what, after.N, before.N, refused+count), nil
}

// altered alters each byte in turn, and counts how often the check fails, which must be always.
func altered(parts [][]byte, holds func() error) (refused int, err error) {
	for number, part := range parts {
		for at := range part {
			part[at] ^= 1
			err := holds()
			part[at] ^= 1
			if err == nil {
				return 0, fmt.Errorf("it holds with byte %d of part %d altered", at, number)
			}
			refused++
		}
	}
	return refused, nil
}

// split parts the lines above the first empty line from the signed note below it.
func split(file []byte) (head []string, signed []byte, err error) {
	end := bytes.Index(file, []byte("\n\n"))
	if end < 0 {
		return nil, nil, errors.New("it has no empty line")
	}
	return strings.Split(string(file[:end]), "\n"), file[end+2:], nil
}

func parseHashes(lines []string) (hashes []tlog.Hash, err error) {
	for _, line := range lines {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, hash)
	}
	return hashes, nil
}

func bytesOf(hashes []tlog.Hash) (parts [][]byte) {
	for i := range hashes {
		parts = append(parts, hashes[i][:])
	}
	return parts
}
