package security

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"longhaul/pkg/contracts"
)

// viewersTemplate renders the file of a tenant's viewers.
var viewersTemplate = template.Must(template.Must(confTemplate.Clone()).Parse(`# Who may see one run each, an account for each run. Made by longhaul security
# grant and revoke; the broker reads it again on nats-server --signal reload.
{{- range .}}
{{template "account" .}}
{{- end}}
`))

// viewersText renders the accounts of viewers, by run.
func viewersText(tenant string, all []grant) string {
	var accounts []account
	var runs []string
	keys := make(map[string][]string)
	for _, g := range all {
		if keys[g.RunID] == nil {
			runs = append(runs, g.RunID)
		}
		keys[g.RunID] = append(keys[g.RunID], g.Key)
	}
	for _, id := range runs {
		accounts = append(accounts, view(tenant, id, keys[id]))
	}
	var out strings.Builder
	if err := viewersTemplate.Execute(&out, accounts); err != nil {
		panic(fmt.Sprintf("security: render viewers: %v", err)) // a builder takes all, and the template is ours
	}
	return out.String()
}

// grant is what is kept of a viewer: the rest follows from it.
type grant struct {
	User  string `json:"user"` // file name of its key
	Key   string `json:"key"`
	RunID string `json:"run_id"`
}

// Grant makes a user of a tenant who may see one run, in the directory that
// Init has made, and returns the name of its files there. It rewrites the list
// of the tenant's viewers, which the brokers have to be given and to read again.
func Grant(dir, tenant, runID string) (user string, err error) {
	if err := contracts.CheckRunID(runID); err != nil {
		return "", fmt.Errorf("run id %w", err)
	}
	all, err := viewersOf(dir, tenant)
	if err != nil {
		return "", err
	}
	key, err := newPair()
	if err != nil {
		return "", err
	}
	// Several may see the same run: the key tells them apart.
	v := grant{User: fileName(tenant, "viewer-"+runID+"-"+strings.ToLower(key.public[len(key.public)-6:])), Key: key.public, RunID: runID}
	ctx, err := viewerContext(dir, tenant, v)
	if err != nil {
		return "", err
	}
	err = write(dir, []file{{"users/" + v.User + ".nk", key.seed}, {"users/" + v.User + ".json", ctx}})
	if err == nil {
		err = saveViewers(dir, tenant, append(all, v))
	}
	return v.User, err
}

// Revoke takes every viewer of a run away again, with their keys, and returns
// how many there were.
func Revoke(dir, tenant, runID string) (int, error) {
	all, err := viewersOf(dir, tenant)
	if err != nil {
		return 0, err
	}
	var stay []grant
	for _, v := range all {
		if v.RunID != runID {
			stay = append(stay, v)
		}
	}
	if err := saveViewers(dir, tenant, stay); err != nil {
		return 0, err
	}
	for _, v := range all {
		if v.RunID == runID {
			for _, ext := range []string{".nk", ".json"} {
				if err := os.Remove(filepath.Join(dir, "users", v.User+ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return 0, fmt.Errorf("remove the key of %s: %w", v.User, err)
				}
			}
		}
	}
	return len(all) - len(stay), nil
}

// viewersOf reads the list of a tenant's viewers.
func viewersOf(dir, tenant string) ([]grant, error) {
	if !nameRule.MatchString(tenant) {
		return nil, fmt.Errorf("tenant %q: is no name of one", tenant)
	}
	if _, err := os.Stat(filepath.Join(dir, "broker", viewersFile(tenant))); err != nil {
		return nil, fmt.Errorf("%s holds nothing of a tenant %s that longhaul security init has made: %w", dir, tenant, err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "users", viewersList(tenant)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []grant
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of viewers: %w", err)
	}
	return all, nil
}

func viewersList(tenant string) string { return "viewers-" + tenant + ".list" }

// saveViewers replaces the list and what the broker reads: both as a whole, and
// the broker's last, so that nobody gets in of whom the list does not know.
func saveViewers(dir, tenant string, all []grant) error {
	list, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the list of viewers: %w", err)
	}
	for _, f := range []file{{"users/" + viewersList(tenant), append(list, '\n')}, {"broker/" + viewersFile(tenant), []byte(viewersText(tenant, all))}} {
		path := filepath.Join(dir, f.path)
		if err := os.WriteFile(path+".new", f.data, 0o600); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
	}
	return nil
}

// viewerContext is made of that of the tenant's operator, which says where the
// brokers are.
func viewerContext(dir, tenant string, v grant) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(dir, "users", fileName(tenant, RoleOperator)+".json"))
	if err != nil {
		return nil, fmt.Errorf("read where the brokers are: %w", err)
	}
	var ctx natsContext
	if err := json.Unmarshal(data, &ctx); err != nil {
		return nil, fmt.Errorf("read where the brokers are: %w", err)
	}
	ctx.Description, ctx.InboxPrefix = "Longhaul: "+v.User, InboxOf(v.Key)
	ctx.NKey = filepath.Join(filepath.Dir(ctx.NKey), v.User+".nk")
	return ctx.encode()
}
