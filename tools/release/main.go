// Command release makes the files of a release: for each platform an archive
// with a static binary, the licences of all that is linked into it and shell
// completion, a bill of materials beside it, and the checksums of all. The same
// commit and the same version of Go give the same bytes, wherever it is done.
//
// It is a module of its own, so that its libraries stay out of Longhaul's.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
)

// platforms are those that Longhaul is released for.
var platforms = []platform{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}}

// thirdPartyFile is what the root of the repository says of its dependencies.
const thirdPartyFile = "THIRD_PARTY.md"

func main() {
	root := flag.String("root", ".", "root of the repository")
	out := flag.String("out", "dist", "directory to write to, made anew; relative to the root")
	licences := flag.Bool("third-party", false, "write "+thirdPartyFile+" and no release")
	dirty := flag.Bool("dirty", false, "release what is there, committed and told of or not, to try it out")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *root, *out, *licences, *dirty); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, out string, licences, dirty bool) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	if licences {
		page, err := thirdParty(ctx, root)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(root, thirdPartyFile), page, 0o644)
	}
	src, err := readSource(ctx, root)
	if err != nil {
		return err
	}
	if !dirty {
		if err := src.check(); err != nil {
			return err
		}
	}
	if !filepath.IsAbs(out) {
		out = filepath.Join(root, out)
	}
	sums, err := release(ctx, src, out, platforms)
	if err != nil {
		return err
	}
	fmt.Print(string(sums))
	return nil
}
