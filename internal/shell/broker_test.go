package shell

import (
	"strings"
	"testing"

	"longhaul/pkg/jsutil"
)

// Each flag goes where it belongs, and what contradicts is a mistake of usage.
func TestReach(t *testing.T) {
	for _, tc := range []struct {
		flags Broker
		want  jsutil.ConnectConfig
	}{
		{Broker{NATS: "nats://a", Creds: "c"}, jsutil.ConnectConfig{URL: "nats://a", Creds: "c", Name: "n"}},
		{Broker{Context: "x", NKey: "k"}, jsutil.ConnectConfig{Context: "x", NKey: "k", Name: "n"}},
		{Broker{TLSCA: "ca", TLSCert: "cert", TLSKey: "key", Inbox: "_I"}, jsutil.ConnectConfig{TLSCA: "ca", TLSCert: "cert", TLSKey: "key", InboxPrefix: "_I", Name: "n"}},
	} {
		if got, err := tc.flags.Reach("n"); err != nil || got != tc.want {
			t.Errorf("%+v: %+v, %v", tc.flags, got, err)
		}
	}
	for says, flags := range map[string]Broker{
		"--creds and --nkey are both given":       {Creds: "c", NKey: "k"},
		"--tls-cert and --tls-key go together":    {TLSCert: "cert"},
		"--tls-cert and --tls-key go together; o": {TLSKey: "key"},
		"--nats and --context are both given":     {NATS: "nats://a", Context: "x"},
	} {
		if _, err := flags.Reach("n"); err == nil || !IsUsage(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v", flags, err)
		}
	}
	if _, err := (Broker{SealKeys: "/nosuch"}).Keys(); !IsUsage(err) || !strings.Contains(err.Error(), "--seal-keys") {
		t.Errorf("keys that are not there: %v", err)
	}
}

// What is told of a broker holds no secret.
func TestShown(t *testing.T) {
	for want, flags := range map[string]Broker{
		"context x":               {Context: "x"},
		"nats://127.0.0.1:4222":   {},
		"nats://a:4222,tls://b:1": {NATS: "nats://ann:hunter2@a:4222, tls://token@b:1?x=y"},
		"(not shown)":             {NATS: "ann:hunter2@a"},
	} {
		if got := flags.Shown(); got != want {
			t.Errorf("%+v is shown as %q, want %q", flags, got, want)
		}
	}
}
