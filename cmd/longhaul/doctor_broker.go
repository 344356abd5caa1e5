package main

import (
	"context"
	"fmt"

	"longhaul/pkg/jsutil"
)

func (x *examination) topology(ctx context.Context) error {
	top := jsutil.NewTopology(x.options())
	differences, err := jsutil.VerifyTopology(ctx, x.js, top)
	if err != nil {
		return err
	}
	version, err := jsutil.StandingVersion(ctx, x.js)
	if err != nil {
		return err
	}
	var names []string
	for _, d := range differences {
		names = append(names, fmt.Sprintf("%s %s is %s, wanted %s", d.Object, d.Setting, d.Have, d.Want))
	}
	switch {
	case len(names) == 0 && version > jsutil.TopologyVersion:
		x.say("topology", findingOK, fmt.Sprintf("version %d, of a newer longhaul; this one knows version %d, lacks nothing in it and leaves it alone", version, jsutil.TopologyVersion))
		return nil
	case len(names) == 0:
		x.say("topology", findingOK, fmt.Sprintf("version %d, streams and consumers are as they should be", version))
		return nil
	}
	state := findingWrong
	if x.Fix {
		if err := jsutil.EnsureTopology(ctx, x.js, top); err != nil {
			return err
		}
		state = findingFixed
	}
	x.say("topology", state, plural(len(names), "setting")+" of streams and consumers differ; longhaul topology migrate --dry-run says what to do", names...)
	return nil
}
