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
	var names []string
	for _, d := range differences {
		names = append(names, fmt.Sprintf("%s %s is %s, wanted %s", d.Object, d.Setting, d.Have, d.Want))
	}
	if len(names) == 0 {
		x.say("topology", findingOK, "streams and consumers are as they should be")
		return nil
	}
	state := findingWrong
	if x.Fix {
		if err := jsutil.EnsureTopology(ctx, x.js, top); err != nil {
			return err
		}
		state = findingFixed
	}
	x.say("topology", state, plural(len(names), "setting")+" of streams and consumers differ", names...)
	return nil
}
