// Package compose checks compose.yaml against the Compose specification's own
// schema, and against what Longhaul needs of it. It is a module of its own, so
// that the checker's dependencies stay out of Longhaul's.
package compose

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

const root = "../.."

func load(t *testing.T, content string) (*types.Project, error) {
	t.Helper()
	dir, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  dir,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, "compose.yaml"), Content: []byte(content)}},
	})
}

func mustRead(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mustLoad(t *testing.T) *types.Project {
	t.Helper()
	project, err := load(t, mustRead(t, "compose.yaml"))
	if err != nil {
		t.Fatalf("compose.yaml: %v", err)
	}
	return project
}

func TestSchemaBites(t *testing.T) {
	good := mustRead(t, "compose.yaml")
	for name, change := range map[string][2]string{
		"unknown key":  {"healthcheck:", "health_check:"},
		"wrong type":   {"retries: 5", "retries: [5]"},
		"bad duration": {"interval: 5s", "interval: soon"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(good, change[0], change[1], 1)
			if bad == good {
				t.Fatalf("compose.yaml has no %q", change[0])
			}
			if _, err := load(t, bad); err == nil {
				t.Errorf("%q in place of %q is taken", change[1], change[0])
			}
		})
	}
}

func TestServices(t *testing.T) {
	project := mustLoad(t)
	for _, name := range []string{"nats", "dispatcher", "statekeeper", "worker"} {
		s, ok := project.Services[name]
		if !ok {
			t.Errorf("no service %s", name)
			continue
		}
		if s.Restart != types.RestartPolicyUnlessStopped {
			t.Errorf("%s: restart is %q", name, s.Restart)
		}
		if s.ContainerName != "" {
			t.Errorf("%s: a container name forbids --scale", name)
		}
		if name == "nats" {
			continue
		}
		if len(s.Ports) > 0 {
			t.Errorf("%s: opens a port on the host", name)
		}
		if url := s.Environment["LONGHAUL_NATS"]; url == nil || *url != "nats://nats:4222" {
			t.Errorf("%s: LONGHAUL_NATS is not the broker's URL", name)
		}
		if len(s.Command) == 0 || s.Command[0] != name {
			t.Errorf("%s: runs %q", name, s.Command)
		}
	}
}

func TestBrokerKeepsItsDataAndItsPort(t *testing.T) {
	nats := mustLoad(t).Services["nats"]
	for _, p := range nats.Ports {
		if p.HostIP != "127.0.0.1" {
			t.Errorf("port %s is open on %q", p.Published, p.HostIP)
		}
	}
	data := nats.Environment["LONGHAUL_DATA"]
	if data == nil {
		t.Fatal("nats.conf needs LONGHAUL_DATA")
	}
	mounted := map[string]string{}
	for _, v := range nats.Volumes {
		mounted[v.Target] = v.Type
		if v.Type == types.VolumeTypeBind {
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("bind mount: %v", err)
			}
		}
	}
	if mounted[*data] != types.VolumeTypeVolume {
		t.Errorf("%s is not on a volume: %v", *data, mounted)
	}
	if nats.HealthCheck == nil {
		t.Error("no health check")
	}
	conf := mustRead(t, "deploy/nats.conf")
	for _, line := range []string{"store_dir: $LONGHAUL_DATA", "sync_interval: always"} {
		if !strings.Contains(conf, line) {
			t.Errorf("deploy/nats.conf lacks %q", line)
		}
	}
}

func TestWorkerMayDrain(t *testing.T) {
	worker := mustLoad(t).Services["worker"]
	setting := worker.Environment["LONGHAUL_DRAIN_TIMEOUT_SECONDS"]
	if setting == nil {
		t.Fatal("LONGHAUL_DRAIN_TIMEOUT_SECONDS is not set")
	}
	drain, err := time.ParseDuration(*setting + "s")
	if err != nil {
		t.Fatal(err)
	}
	if worker.StopGracePeriod == nil || time.Duration(*worker.StopGracePeriod) < drain+20*time.Second {
		t.Errorf("stop_grace_period is %v, too short for a drain of %v and what follows it", worker.StopGracePeriod, drain)
	}
}

// The image is built from what is copied, not from what is there.
func TestImageHasAllItIsBuiltFrom(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.ImportPath}}{{end}}{{end}}", "./cmd/longhaul")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	folders := map[string]bool{}
	for _, path := range strings.Fields(string(out)) {
		folders[strings.Split(path, "/")[1]] = true
	}
	if len(folders) < 3 {
		t.Fatalf("found only %v", folders)
	}
	dockerfile, ignore := mustRead(t, "deploy/Dockerfile"), mustRead(t, ".dockerignore")
	for f := range folders {
		if !strings.Contains(dockerfile, "COPY "+f+" ./"+f+"\n") {
			t.Errorf("deploy/Dockerfile does not copy %s", f)
		}
		if !strings.Contains(ignore, "!"+f+"\n") {
			t.Errorf(".dockerignore hides %s", f)
		}
	}
}

func TestImagesArePinned(t *testing.T) {
	pinned := regexp.MustCompile(`:\d+\.\d+\.\d+(-\w+)?$`)
	images := []string{mustLoad(t).Services["nats"].Image}
	for line := range strings.Lines(mustRead(t, "deploy/Dockerfile")) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "FROM" && f[1] != "scratch" {
			images = append(images, f[1])
		}
	}
	if len(images) < 2 {
		t.Fatalf("found only %q", images)
	}
	for _, image := range images {
		if !pinned.MatchString(image) {
			t.Errorf("image %q names no exact version", image)
		}
	}
}
