package security

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// A broker in operator mode knows no users of its own: an account's key signs for
// them, in credentials files. Everything goes by --creds then; nobody gets in
// without, nor with what somebody else has signed, nor when it has run out, and a
// user is bound by what is written in his.
func TestCredentialsFiles(t *testing.T) {
	operator, account := mustKey(t, nkeys.CreateOperator), mustKey(t, nkeys.CreateAccount)
	url := startOperatorMode(t, operator, account)
	good := credentials(t, account, func(*jwt.UserClaims) {})
	s := &stage{}
	call := func(creds string, args ...string) (out string, code int) {
		t.Helper()
		args = append(args, "--nats", url)
		if creds != "" {
			args = append(args, "--creds", creds)
		}
		out, errs, code := s.flags(t, args...)
		return out + errs, code
	}
	if out, code := call(good, "topology", "create", "--agent", "echo"); code != 0 {
		t.Fatalf("topology create: %d\n%s", code, out)
	}
	for _, service := range [][]string{{"dispatcher"}, {"statekeeper"}, {"worker", "--agent", "echo"}} {
		s.launch(t, service[0], command(append(service, "--nats", url, "--creds", good)...))
	}
	waitFor(t, "a worker", func() bool {
		out, _ := call(good, "agents", "--json")
		return strings.Contains(out, `"listening":true`)
	})
	if out, code := call(good, "submit", "echo", "--message", "by creds", "--wait"); code != 0 || !strings.Contains(out, "by creds") {
		t.Errorf("submit: %d\n%s", code, out)
	}
	for name, tc := range map[string]struct{ creds, says string }{
		"none":               {"", "Authorization Violation"},
		"another account's":  {credentials(t, mustKey(t, nkeys.CreateAccount), func(*jwt.UserClaims) {}), "Authorization Violation"},
		"run out":            {credentials(t, account, func(u *jwt.UserClaims) { u.Expires = time.Now().Add(-time.Minute).Unix() }), "Authorization Violation"},
		"with fewer rights":  {credentials(t, account, func(u *jwt.UserClaims) { u.Permissions.Pub.Allow = jwt.StringList{"runs.*.cancel"} }), "ermissions"},
		"no file of a user":  {filepath.Join(t.TempDir(), "nosuch.creds"), "nosuch.creds"},
		"a key that is none": {written(t, "bad.creds", []byte("-----BEGIN USER NKEY SEED-----\nno\n------END USER NKEY SEED------\n")), "bad.creds"},
	} {
		if out, code := call(tc.creds, "submit", "echo", "--message", "no"); code == 0 || !strings.Contains(out, tc.says) {
			t.Errorf("credentials: %s: ended with %d, want %q in\n%s", name, code, tc.says, out)
		}
	}
}

func mustKey(t *testing.T, create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	t.Helper()
	kp, err := create()
	if err != nil {
		t.Fatal(err)
	}
	return kp
}

func public(t *testing.T, kp nkeys.KeyPair) string {
	t.Helper()
	key, err := kp.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// startOperatorMode starts a broker that knows one operator and one account.
func startOperatorMode(t *testing.T, operator, account nkeys.KeyPair) (url string) {
	t.Helper()
	resolver := &server.MemAccResolver{}
	store := func(kp nkeys.KeyPair, storage int64) {
		claims := jwt.NewAccountClaims(public(t, kp))
		claims.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: storage, MemoryStorage: storage, Streams: storage, Consumer: storage}
		token, err := claims.Encode(operator)
		if err == nil {
			err = resolver.Store(public(t, kp), token)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	system := mustKey(t, nkeys.CreateAccount)
	store(account, jwt.NoLimit)
	store(system, 0)
	b, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true,
		TrustedKeys: []string{public(t, operator)}, AccountResolver: resolver, SystemAccount: public(t, system)})
	if err != nil {
		t.Fatal(err)
	}
	b.Start()
	t.Cleanup(func() {
		b.Shutdown()
		b.WaitForShutdown()
	})
	if !b.ReadyForConnections(10 * time.Second) {
		t.Fatal("the broker is not ready")
	}
	return b.ClientURL()
}

// credentials is the file of a new user, for whom an account's key has signed.
func credentials(t *testing.T, account nkeys.KeyPair, with func(*jwt.UserClaims)) string {
	t.Helper()
	user := mustKey(t, nkeys.CreateUser)
	claims := jwt.NewUserClaims(public(t, user))
	with(claims)
	token, err := claims.Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	file, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		t.Fatal(err)
	}
	return written(t, "user.creds", file)
}

func written(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
