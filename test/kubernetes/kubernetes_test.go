// Package kubernetes checks deploy/kubernetes: built by kustomize's own library,
// each object held against the types of Kubernetes, what is KEDA's against
// KEDA's own schemas, and all of it against what Longhaul needs. It is a module
// of its own, so that the checkers' dependencies stay out of Longhaul's.
package kubernetes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/kedacore/keda/v2/version" // for the schemas that this module ships
	"github.com/santhosh-tekuri/jsonschema/v6"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const root = "../.."

// object is one of a deployment: as JSON, and as its type has it if it is one of Kubernetes.
type object struct {
	kind, name string
	json       []byte
	typed      any
}

var kinds = map[string]func() any{
	"apps/v1 Deployment":            func() any { return new(appsv1.Deployment) },
	"batch/v1 Job":                  func() any { return new(batchv1.Job) },
	"policy/v1 PodDisruptionBudget": func() any { return new(policyv1.PodDisruptionBudget) },
	"v1 ConfigMap":                  func() any { return new(corev1.ConfigMap) },
	"keda.sh/v1alpha1 ScaledObject": func() any { return nil },
}

// decode refuses fields that a kind does not have.
func decode(document []byte) (object, error) {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name string `json:"name"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(document, &head); err != nil {
		return object{}, err
	}
	o := object{kind: head.Kind, name: head.Metadata.Name, json: document}
	make, ok := kinds[head.APIVersion+" "+head.Kind]
	if !ok {
		return o, fmt.Errorf("no kind that is used here: %s %s", head.APIVersion, head.Kind)
	}
	if o.typed = make(); o.typed != nil {
		if err := yaml.UnmarshalStrict(document, o.typed); err != nil {
			return o, fmt.Errorf("%s %s: %w", o.kind, o.name, err)
		}
	}
	return o, nil
}

func mustBuild(t *testing.T, dir string) []object {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(root, "deploy/kubernetes", dir))
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	var objects []object
	for _, r := range built.Resources() {
		document, err := r.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		o, err := decode(document)
		if err != nil {
			t.Errorf("%s: %v", dir, err)
		}
		objects = append(objects, o)
	}
	return objects
}

// mustFind returns the only object of a type with a name; a generated name is longer.
func mustFind[T any](t *testing.T, objects []object, name string) *T {
	t.Helper()
	for _, o := range objects {
		if typed, ok := o.typed.(*T); ok && strings.HasPrefix(o.name, name) {
			return typed
		}
	}
	t.Fatalf("no %T %s", *new(T), name)
	return nil
}

func mustRead(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAllIsBuilt(t *testing.T) {
	for dir, want := range map[string]int{"base": 7, "topology": 1, "overlays/example": 9} {
		if n := len(mustBuild(t, dir)); n != want {
			t.Errorf("%s: %d objects, want %d", dir, n, want)
		}
	}
}

func TestSchemaBites(t *testing.T) {
	for _, o := range mustBuild(t, "base") {
		if o.kind != "Deployment" {
			continue
		}
		for name, change := range map[string][2]string{
			"unknown field": {`"livenessProbe"`, `"livelinessProbe"`},
			"wrong type":    {`"replicas":2`, `"replicas":"two"`},
			"unknown kind":  {`"kind":"Deployment"`, `"kind":"Deplyoment"`},
		} {
			bad := bytes.Replace(o.json, []byte(change[0]), []byte(change[1]), 1)
			if bytes.Equal(bad, o.json) {
				t.Fatalf("%s has no %s", o.name, change[0])
			}
			if _, err := decode(bad); err == nil {
				t.Errorf("%s: %s is taken", o.name, name)
			}
		}
	}
}

// mustFindKEDA is where KEDA's module is.
func mustFindKEDA(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/kedacore/keda/v2").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// mustCompileCRD compiles the schema of KEDA's ScaledObject, and lets it refuse
// fields that are not in it: Kubernetes would drop them in silence.
func mustCompileCRD(t *testing.T) *jsonschema.Schema {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(mustFindKEDA(t), "config/crd/bases/keda.sh_scaledobjects.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema map[string]any `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(content, &crd); err != nil {
		t.Fatal(err)
	}
	schema := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	closeObjects(schema)
	delete(schema["properties"].(map[string]any)["metadata"].(map[string]any), "additionalProperties")
	c := jsonschema.NewCompiler()
	if err := c.AddResource("crd.json", schema); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("crd.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func closeObjects(schema map[string]any) {
	if properties, ok := schema["properties"].(map[string]any); ok {
		if _, open := schema["additionalProperties"]; !open {
			schema["additionalProperties"] = false
		}
		for _, p := range properties {
			closeObjects(p.(map[string]any))
		}
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if sub, ok := schema[key].(map[string]any); ok {
			closeObjects(sub)
		}
	}
}

func mustFindScaledObject(t *testing.T) []byte {
	t.Helper()
	for _, o := range mustBuild(t, "overlays/example") {
		if o.kind == "ScaledObject" {
			return o.json
		}
	}
	t.Fatal("no ScaledObject")
	return nil
}

func TestScaledObjectSatisfiesKEDA(t *testing.T) {
	schema, good := mustCompileCRD(t), mustFindScaledObject(t)
	validate := func(document []byte) error {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
		if err != nil {
			return err
		}
		return schema.Validate(v)
	}
	if err := validate(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string][2]string{
		"unknown field": {`"minReplicaCount"`, `"minReplicas"`},
		"wrong type":    {`"maxReplicaCount":20`, `"maxReplicaCount":"20"`},
		"deep down":     {`"stabilizationWindowSeconds"`, `"stabilisationWindowSeconds"`},
		"number":        {`"lagThreshold":"10"`, `"lagThreshold":10`},
	} {
		bad := bytes.Replace(good, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(bad, good) {
			t.Fatalf("the ScaledObject has no %s", change[0])
		}
		if validate(bad) == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
