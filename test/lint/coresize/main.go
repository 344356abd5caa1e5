// Command coresize counts the lines of Go code in the given directories, tests,
// test support (a package named *test), comments and blank lines left out, and
// fails if there are more than -max. The core is meant to be read in a day.
package main

import (
	"flag"
	"fmt"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	limit := flag.Int("max", 0, "the most lines allowed; 0 only counts")
	flag.Parse()
	total := 0
	for _, root := range flag.Args() {
		n, err := countTree(root)
		if err != nil {
			fmt.Fprintln(os.Stderr, "coresize:", err)
			os.Exit(1)
		}
		fmt.Printf("%6d  %s\n", n, root)
		total += n
	}
	fmt.Printf("%6d  lines of code in the core, of %d allowed\n", total, *limit)
	if *limit > 0 && total > *limit {
		os.Exit(1)
	}
}

func countTree(root string) (int, error) {
	total := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasSuffix(d.Name(), "test"), d.IsDir() && d.Name() == "testdata":
			return filepath.SkipDir
		case d.IsDir(), filepath.Ext(path) != ".go", strings.HasSuffix(path, "_test.go"):
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		total += count(src)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", root, err)
	}
	return total, nil
}

// count returns how many lines of src hold a token that is no comment.
func count(src []byte) int {
	files := token.NewFileSet()
	file := files.AddFile("", files.Base(), len(src))
	var s scanner.Scanner
	s.Init(file, src, nil, 0) // without ScanComments, comments are skipped
	lines, last := 0, 0
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return lines
		}
		if tok == token.SEMICOLON && lit == "\n" {
			continue // put in by the scanner
		}
		first := file.Line(pos)
		end := first + strings.Count(lit, "\n") // a raw string may span lines
		if first <= last {
			first = last + 1
		}
		if end >= first {
			lines += end - first + 1
			last = end
		}
	}
}
