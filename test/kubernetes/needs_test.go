package kubernetes

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"

	"longhaul/pkg/contracts"
)

var services = []string{"dispatcher", "statekeeper", "worker"}

// checkPod holds what the "restricted" profile of Kubernetes asks of pods, and we.
func checkPod(t *testing.T, pod corev1.PodSpec) corev1.Container {
	t.Helper()
	if len(pod.Containers) != 1 {
		t.Fatalf("%d containers", len(pod.Containers))
	}
	c := pod.Containers[0]
	p, s := pod.SecurityContext, c.SecurityContext
	if p == nil || p.RunAsNonRoot == nil || !*p.RunAsNonRoot || p.RunAsUser == nil || *p.RunAsUser != 65532 || p.SeccompProfile == nil ||
		p.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault || p.FSGroup == nil {
		t.Errorf("securityContext of the pod: %+v", p)
	}
	if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
		s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("securityContext of the container: %+v", s)
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken || pod.EnableServiceLinks == nil || *pod.EnableServiceLinks {
		t.Error("it is given a token or links that it has no use for")
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
		t.Errorf("resources: %+v", c.Resources)
	}
	mounts := map[string]bool{}
	for _, m := range c.VolumeMounts {
		mounts[m.Name] = true
	}
	for _, v := range pod.Volumes {
		if !mounts[v.Name] {
			t.Errorf("volume %s is not mounted", v.Name)
		}
		delete(mounts, v.Name)
	}
	if len(mounts) > 0 {
		t.Errorf("mounts without a volume: %v", mounts)
	}
	return c
}

func TestServices(t *testing.T) {
	for _, dir := range []string{"base", "overlays/example"} {
		objects := mustBuild(t, dir)
		for _, name := range services {
			t.Run(dir+"/"+name, func(t *testing.T) {
				d := mustFind[appsv1.Deployment](t, objects, "longhaul-"+name)
				c := checkPod(t, d.Spec.Template.Spec)
				if c.Args[0] != name {
					t.Errorf("it runs %q", c.Args)
				}
				for path, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
					if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.StrVal != c.Ports[0].Name {
						t.Errorf("no probe of %s: %+v", path, probe)
					}
				}
				if c.ReadinessProbe.TimeoutSeconds < 6 {
					t.Error("/readyz may take seconds while the broker is in trouble")
				}
				if port := d.Spec.Template.Annotations["prometheus.io/port"]; port != strconv.Itoa(int(c.Ports[0].ContainerPort)) {
					t.Errorf("metrics are scraped at port %q", port)
				}
				want := int32(2)
				if dir != "base" && name == "worker" {
					want = -1 // unset: their number is KEDA's
				}
				if n := deref(d.Spec.Replicas, -1); n != want {
					t.Errorf("replicas: %d, want %d", n, want)
				}
				pdb := mustFind[policyv1.PodDisruptionBudget](t, objects, "longhaul-"+name)
				for _, labels := range []map[string]string{d.Spec.Selector.MatchLabels, pdb.Spec.Selector.MatchLabels} {
					for key, value := range labels {
						if d.Spec.Template.Labels[key] != value {
							t.Errorf("%s=%s selects other pods", key, value)
						}
					}
				}
			})
		}
	}
}

func deref[T any](p *T, unset T) T {
	if p == nil {
		return unset
	}
	return *p
}

func TestWorkerMayDrain(t *testing.T) {
	pod := mustFind[appsv1.Deployment](t, mustBuild(t, "base"), "longhaul-worker").Spec.Template.Spec
	env := map[string]string{}
	for _, e := range pod.Containers[0].Env {
		env[e.Name] = e.Value
	}
	drain, err := time.ParseDuration(env["LONGHAUL_DRAIN_TIMEOUT_SECONDS"] + "s")
	if err != nil {
		t.Fatal(err)
	}
	// 30 s is what Kubernetes gives if nothing is said.
	grace := time.Duration(deref(pod.TerminationGracePeriodSeconds, 30)) * time.Second
	if grace < drain+20*time.Second {
		t.Errorf("terminationGracePeriodSeconds is %v, too short for a drain of %v and what follows it", grace, drain)
	}
}

// What is set in the environment must be a flag of the command, and what is
// read from files must be mounted there.
func TestSettingsAreFlags(t *testing.T) {
	objects := mustBuild(t, "base")
	common := mustFind[corev1.ConfigMap](t, objects, "longhaul").Data
	binary := filepath.Join(t.TempDir(), "longhaul")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/longhaul")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	check := func(command string, c corev1.Container, env map[string]string) {
		for _, e := range c.Env {
			if strings.HasPrefix(e.Name, "LONGHAUL_") {
				env[e.Name] = e.Value
			}
		}
		help, err := exec.CommandContext(t.Context(), binary, append(strings.Fields(command), "--help")...).Output()
		if err != nil {
			t.Fatalf("help of %s: %v", command, err)
		}
		isFlag := func(s string) bool { return regexp.MustCompile(`(?m)^ +` + regexp.QuoteMeta(s) + `[=\s]`).Match(help) }
		for name, value := range env {
			flag := "--" + strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "LONGHAUL_")), "_", "-")
			if !isFlag(flag) {
				t.Errorf("%s: no flag %s", command, flag)
			}
			if !strings.HasPrefix(value, "/") {
				continue
			}
			if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == filepath.Dir(value) }) {
				t.Errorf("%s: nothing is mounted at %s", command, value)
			}
		}
		for _, arg := range c.Args {
			if strings.HasPrefix(arg, "--") && !isFlag(arg) {
				t.Errorf("%s: no flag %s", command, arg)
			}
		}
	}
	for _, name := range services {
		env := map[string]string{}
		for key, value := range common {
			env[key] = value
		}
		check(name, mustFind[appsv1.Deployment](t, objects, "longhaul-"+name).Spec.Template.Spec.Containers[0], env)
	}
	job := mustFind[batchv1.Job](t, mustBuild(t, "topology"), "longhaul-topology").Spec.Template.Spec
	check("topology create", checkPod(t, job), map[string]string{})
}

// scaled is what the tests read of a ScaledObject.
type scaled struct {
	Spec struct {
		ScaleTargetRef struct{ Name string }
		Advanced       struct {
			ScalingModifiers struct{ Formula, Target string }
		}
		Triggers []struct {
			Type, Name string
			Metadata   map[string]string
		}
	}
}

func TestScalingCountsTheQueuesOfTheAgent(t *testing.T) {
	var so scaled
	if err := json.Unmarshal(mustFindScaledObject(t), &so); err != nil {
		t.Fatal(err)
	}
	if so.Spec.ScaleTargetRef.Name != "longhaul-worker" {
		t.Errorf("it scales %q", so.Spec.ScaleTargetRef.Name)
	}
	parameters := mustReadScaler(t, "nats-jetstream")
	var terms []string
	for i, p := range contracts.Priorities() {
		trigger := so.Spec.Triggers[i]
		if m := trigger.Metadata; trigger.Type != "nats-jetstream" || m["stream"] != contracts.StreamWork || m["consumer"] != contracts.WorkConsumer("echo", p) {
			t.Errorf("%s: %+v", p, trigger)
		}
		for name := range trigger.Metadata {
			if _, ok := parameters[name]; !ok {
				t.Errorf("the scaler knows no %s", name)
			}
		}
		for name, needed := range parameters {
			if needed && trigger.Metadata[name] == "" {
				t.Errorf("the scaler needs %s", name)
			}
		}
		terms = append(terms, trigger.Name)
	}
	if n := len(so.Spec.Triggers); n != len(terms) {
		t.Errorf("%d triggers", n)
	}
	formula := so.Spec.Advanced.ScalingModifiers
	if formula.Formula != strings.Join(terms, " + ") {
		t.Errorf("formula is %q, of %q", formula.Formula, terms)
	}
	for _, e := range mustFind[appsv1.Deployment](t, mustBuild(t, "base"), "longhaul-worker").Spec.Template.Spec.Containers[0].Env {
		if e.Name == "LONGHAUL_CONCURRENCY" && e.Value != formula.Target {
			t.Errorf("a worker has %s slots, and %s runs are counted to it", e.Value, formula.Target)
		}
	}
}

// mustReadScaler returns the parameters of one of KEDA's scalers, and whether each is needed.
func mustReadScaler(t *testing.T, name string) map[string]bool {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(mustFindKEDA(t), "schema/generated/scalers-schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Scalers []struct {
			Type       string
			Parameters []struct {
				Name     string
				Optional bool
				Default  any
			}
		}
	}
	if err := json.Unmarshal(content, &all); err != nil {
		t.Fatal(err)
	}
	for _, s := range all.Scalers {
		if s.Type != name {
			continue
		}
		parameters := map[string]bool{}
		for _, p := range s.Parameters {
			parameters[p.Name] = !p.Optional && p.Default == nil
		}
		return parameters
	}
	t.Fatalf("no scaler %s", name)
	return nil
}

// The broker of the chart is the one that all else is tested with.
func TestBrokersVersion(t *testing.T) {
	image := regexp.MustCompile(`image: nats:(\S+)`).FindStringSubmatch(mustRead(t, "compose.yaml"))
	if image == nil || !strings.Contains(mustRead(t, "deploy/kubernetes/nats-values.yaml"), "{tag: "+image[1]+"}") {
		t.Errorf("deploy/kubernetes/nats-values.yaml has another broker than compose.yaml, %q", image)
	}
}
