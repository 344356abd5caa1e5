package security

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Made is what Init has written, for those who tell people about it.
type Made struct {
	Dir     string
	Plan    Plan     // with its defaults filled in
	Brokers []string // paths of the brokers' configurations
	Users   []string // names of the users, as files and contexts are named
}

// file is one to be written.
type file struct {
	path string // below the directory
	data []byte
}

// Init makes everything for the deployment p in dir: keys, certificates, the
// brokers' configurations and a NATS context for each user. Nobody but the
// caller's user may read any of it. dir must be empty or missing: nothing is
// ever written over. If something fails halfway, what was written is removed.
func Init(dir string, p Plan) (_ Made, err error) {
	if err := p.Check(); err != nil {
		return Made{}, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return Made{}, fmt.Errorf("find %s: %w", dir, err)
	}
	if p.Install == "" {
		p.Install = dir
	}
	files, made, err := p.files()
	if err != nil {
		return Made{}, err
	}
	made.Dir, made.Plan = dir, p
	if err := vacant(dir); err != nil {
		return Made{}, err
	}
	return made, write(dir, files)
}

// vacant makes dir if it is missing, and returns an error if anything is in it.
func vacant(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look into the directory: %w", err)
	}
	if len(there) > 0 {
		return fmt.Errorf("%s is not empty (it holds %s): keys are never written over; name a directory that is empty or does not exist", dir, there[0].Name())
	}
	return nil
}

func write(dir string, files []file) (err error) {
	var written []string
	defer func() {
		if err != nil {
			for _, path := range slices.Backward(written) {
				err = errors.Join(err, os.Remove(path))
			}
		}
	}()
	for _, f := range files {
		path := filepath.Join(dir, f.path)
		if err := os.Mkdir(filepath.Dir(path), 0o700); err == nil {
			written = append(written, filepath.Dir(path))
		} else if !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make a directory: %w", err)
		}
		out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
		written = append(written, path)
		_, err = out.Write(f.data)
		if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
	}
	return nil
}

// fileName is how the files of a user are named.
func fileName(tenant, user string) string {
	if tenant == "" {
		return user
	}
	return tenant + "-" + user
}

// files makes all that is to be written.
func (p Plan) files() (files []file, made Made, err error) {
	keys := make(map[string]pair)
	var failed error
	key := func(tenant, user string) string {
		name := fileName(tenant, user)
		if _, there := keys[name]; !there {
			made.Users = append(made.Users, name)
			var err error
			keys[name], err = newPair()
			failed = errors.Join(failed, err)
		}
		return keys[name].public
	}
	brokers, err := Configs(p, key)
	if err := errors.Join(err, failed); err != nil {
		return nil, Made{}, err
	}
	for _, b := range brokers {
		made.Brokers = append(made.Brokers, b.Path)
		files = append(files, file{b.Path, []byte(b.Text)})
	}
	for _, t := range p.Tenants {
		files = append(files, file{"broker/" + viewersFile(t), []byte(viewersText(t, nil))})
	}
	for _, name := range made.Users {
		ctx, err := p.context(name, keys[name].public).encode()
		if err != nil {
			return nil, Made{}, err
		}
		files = append(files, file{"users/" + name + ".nk", keys[name].seed}, file{"users/" + name + ".json", ctx})
	}
	certs, err := p.certs(time.Now())
	return append(files, certs...), made, err
}

// natsContext is a user's NATS context, which longhaul and the nats command read.
type natsContext struct {
	Description string `json:"description"`
	URL         string `json:"url"`
	NKey        string `json:"nkey"`
	CA          string `json:"ca"`
	InboxPrefix string `json:"inbox_prefix"`
}

func (c natsContext) encode() ([]byte, error) {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode a context: %w", err)
	}
	return append(data, '\n'), nil
}

func (p Plan) context(name, public string) natsContext {
	return natsContext{
		Description: "Longhaul: " + name, URL: p.URL(), InboxPrefix: InboxOf(public),
		NKey: filepath.Join(p.Install, "users", name+".nk"), CA: filepath.Join(p.Install, "tls", "ca.pem"),
	}
}

// certs makes the certificates: one CA vouches for brokers towards clients,
// another one for brokers towards brokers, so that nobody else's certificate
// opens a route.
func (p Plan) certs(now time.Time) ([]file, error) {
	var files []file
	ca := func(name, words string) (*authority, error) {
		a, err := newAuthority(words, now)
		if err != nil {
			return nil, err
		}
		key, err := encodeKey(a.key)
		files = append(files, file{"tls/" + name + ".pem", encodeCert(a.cert)}, file{"tls/" + name + "-key.pem", key})
		return a, err
	}
	issue := func(a *authority, name string, hosts []string, usages ...x509.ExtKeyUsage) error {
		cert, key, err := a.issue(name, hosts, usages, now)
		files = append(files, file{"tls/" + name + ".pem", cert}, file{"tls/" + name + "-key.pem", key})
		return err
	}
	outer, err := ca("ca", "Longhaul brokers")
	if err != nil {
		return nil, err
	}
	var hosts []string
	for _, h := range p.Hosts {
		if h := hostOf(h); !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	if len(p.Nodes) == 0 {
		err := issue(outer, "broker", hosts, x509.ExtKeyUsageServerAuth)
		return files, err
	}
	inner, err := ca("route-ca", "Longhaul routes")
	if err != nil {
		return nil, err
	}
	for _, n := range p.Nodes {
		// A client may have been given any of the names: a load balancer's, say.
		names := hosts
		if !slices.Contains(hosts, n.Host) {
			names = append(slices.Clone(hosts), n.Host)
		}
		err := errors.Join(issue(outer, n.Name, names, x509.ExtKeyUsageServerAuth),
			issue(inner, n.Name+"-route", []string{n.Host}, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth))
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}
