package contracts

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const schemaDir = "../../docs/schemas/"

// schema is a JSON Schema as it stands in its file.
type schema map[string]any

func readSchema(t testing.TB, file string) schema {
	t.Helper()
	data, err := os.ReadFile(schemaDir + file)
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return s
}

// at follows a path of keywords; it is nil if there is nothing.
func (s schema) at(path ...string) schema {
	for _, step := range path {
		next, _ := s[step].(map[string]any)
		s = next
	}
	return s
}

// resolve follows $ref, but keeps a description of its own.
func (s schema) resolve(t testing.TB, root schema) (schema, schema) {
	t.Helper()
	if choices, ok := s["anyOf"].([]any); ok { // the type itself, or null
		s = choices[0].(map[string]any)
	}
	ref, ok := s["$ref"].(string)
	if !ok {
		return s, root
	}
	file, pointer, _ := strings.Cut(ref, "#/")
	if file != "" {
		root = readSchema(t, file)
	}
	target := root
	if pointer != "" {
		target = root.at(strings.Split(pointer, "/")...)
	}
	if target == nil {
		t.Fatalf("$ref %s leads nowhere", ref)
	}
	return target, root
}

func (s schema) types() []string {
	switch v := s["type"].(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, t := range v {
			out = append(out, t.(string))
		}
		return out
	}
	return nil
}

func (s schema) strings(keyword string) []string {
	out := []string{}
	list, _ := s[keyword].([]any)
	for _, v := range list {
		if v != nil {
			out = append(out, v.(string))
		}
	}
	return out
}

// payloadTypes has the Go type of every payload that has one.
var payloadTypes = map[EventType]reflect.Type{
	TypeQueued: reflect.TypeFor[Queued](), TypeScheduled: reflect.TypeFor[Scheduled](), TypeRejected: reflect.TypeFor[Rejected](),
	TypeStarted: reflect.TypeFor[Started](), TypeHeartbeat: reflect.TypeFor[Heartbeat](), TypeRetrying: reflect.TypeFor[Retrying](),
	TypeRequeued: reflect.TypeFor[Requeued](), TypeCancelRequested: reflect.TypeFor[CancelRequested](),
	TypeCancelled: reflect.TypeFor[Cancelled](), TypeSucceeded: reflect.TypeFor[Succeeded](), TypeFailed: reflect.TypeFor[Failed](),
	TypeTimedOut: reflect.TypeFor[TimedOut](), TypeCheckpoint: reflect.TypeFor[Checkpointed](), TypeDelta: reflect.TypeFor[Delta](),
	TypeMessage: reflect.TypeFor[Message](), TypeSleeping: reflect.TypeFor[Sleeping](), TypeStepCompleted: reflect.TypeFor[StepCompleted](),
	TypeSignalled: reflect.TypeFor[Signalled](), TypeToolConfirm: reflect.TypeFor[ToolConfirm](),
}

// TestSchemasHaveTheFieldsOfTheTypes compares names, types, what is required
// and what may be null, all the way down.
func TestSchemasHaveTheFieldsOfTheTypes(t *testing.T) {
	submission, event := readSchema(t, "submission.schema.json"), readSchema(t, "event.schema.json")
	compareSchema(t, "submission", submission, submission, reflect.TypeFor[Submission](), true)
	compareSchema(t, "event", event, event, reflect.TypeFor[Event](), false)
	for _, from := range transitions {
		for eventType := range from {
			if eventType != typeAny && payloadTypes[eventType] == nil {
				t.Errorf("the payload of %s is compared with nothing", eventType)
			}
		}
	}
	defs := event.at("$defs")
	for eventType, goType := range payloadTypes {
		def, ok := defs[string(eventType)].(map[string]any)
		if !ok {
			t.Errorf("event.schema.json: no $defs for %s", eventType)
			continue
		}
		compareSchema(t, string(eventType), def, event, goType, false)
	}
	for name := range defs {
		if payloadTypes[EventType(name)] == nil && name != "checkpoint_ref" && name != "usage" && name != "error" {
			t.Errorf("event.schema.json: $defs has %s, the code does not", name)
		}
	}
}

func compareSchema(t *testing.T, at string, s, root schema, goType reflect.Type, closed bool) {
	t.Helper()
	s, root = s.resolve(t, root)
	if goType.Kind() == reflect.Pointer {
		goType = goType.Elem()
	}
	is := func(want string) {
		t.Helper()
		if types := slices.DeleteFunc(s.types(), func(s string) bool { return s == "null" }); !slices.Equal(types, []string{want}) {
			t.Errorf("%s: type %v, the code has %s", at, types, want)
		}
	}
	switch {
	case goType == reflect.TypeFor[json.RawMessage](): // judged by what the decoder says
	case goType == reflect.TypeFor[time.Time]():
		if is("string"); s["format"] != "date-time" {
			t.Errorf("%s: format %v", at, s["format"])
		}
	case goType == reflect.TypeFor[[]byte]():
		if is("string"); s["contentEncoding"] != "base64" {
			t.Errorf("%s: contentEncoding %v", at, s["contentEncoding"])
		}
	case goType.Kind() == reflect.String:
		if s["enum"] == nil {
			is("string")
		}
	case goType.Kind() == reflect.Bool:
		is("boolean")
	case goType.Kind() == reflect.Float64:
		is("number")
	case goType.Kind() == reflect.Int, goType.Kind() == reflect.Uint64:
		is("integer")
	case goType.Kind() == reflect.Map:
		is("object")
		compareSchema(t, at+"{}", s.at("additionalProperties"), root, goType.Elem(), closed)
	case goType.Kind() == reflect.Slice:
		is("array")
		if goType.Elem() != reflect.TypeFor[json.RawMessage]() {
			compareSchema(t, at+"[]", s.at("items"), root, goType.Elem(), closed)
		}
	case goType.Kind() == reflect.Struct:
		is("object")
		if allowed := s["additionalProperties"]; closed && allowed != false {
			t.Errorf("%s: additionalProperties %v, the decoder refuses them", at, allowed)
		}
		compareFields(t, at, s, root, goType, closed)
	default:
		t.Errorf("%s: nothing known of %s", at, goType)
	}
}

func compareFields(t *testing.T, at string, s, root schema, goType reflect.Type, closed bool) {
	t.Helper()
	var fields, required []string
	for _, f := range reflect.VisibleFields(goType) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous {
			continue
		}
		fields = append(fields, name)
		if options == "" {
			required = append(required, name)
		}
		property := s.at("properties", name)
		if property == nil {
			t.Errorf("%s: no property %s", at, name)
			continue
		}
		compareSchema(t, at+"."+name, property, root, f.Type, closed)
		if target, _ := property.resolve(t, root); property["description"] == nil && target["description"] == nil {
			t.Errorf("%s.%s: has no description", at, name)
		}
		enum, _ := property["enum"].([]any)
		if nullable := slices.Contains(property.types(), "null") || slices.Contains(enum, nil); closed && nullable != (options != "") {
			t.Errorf("%s.%s: null is allowed: %t, the field is optional: %t", at, name, nullable, options != "")
		}
	}
	for name := range s.at("properties") {
		if !slices.Contains(fields, name) {
			t.Errorf("%s: property %s is not in %s", at, name, goType)
		}
	}
	has := s.strings("required")
	if slices.Sort(has); !slices.Equal(has, slices.Sorted(slices.Values(required))) {
		t.Errorf("%s: required %v, the code has %v", at, has, required)
	}
}

// fieldsOf lists the fields of a type, as faults are to show them.
func fieldsOf[T any]() string {
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

func TestSchemasHaveTheEnumsAndLimitsOfTheCode(t *testing.T) {
	submission, event := readSchema(t, "submission.schema.json"), readSchema(t, "event.schema.json")
	property := submission.at("properties")
	strs := func(list any) []string {
		var out []string
		for v := reflect.ValueOf(list); v.Len() > len(out); {
			out = append(out, v.Index(len(out)).String())
		}
		return out
	}
	for name, c := range map[string]struct {
		schema schema
		want   []string
	}{
		"priority":         {property.at("priority"), strs(Priorities())},
		"on_conflict":      {property.at("on_conflict"), strs([]OnConflict{OnConflictEnqueue, OnConflictReject, OnConflictInterrupt})},
		"event priority":   {event.at("properties", "priority"), strs(Priorities())},
		"status":           {event.at("properties", "status"), strs(Statuses())},
		"visibility":       {event.at("properties", "visibility"), strs([]Visibility{VisibilityInternal, VisibilityDebug, VisibilityUser})},
		"role":             {submission.at("$defs", "message", "properties", "role"), []string{RoleSystem, RoleDeveloper, RoleUser, RoleAssistant, RoleTool}},
		"reason":           {event.at("$defs", "run.requeued", "properties", "reason"), []string{RequeueShutdown, RequeueRedrive, RequeueWorkLost}},
		"reserved workers": {event.at("properties", "worker_id", "not"), []string{"events", "log", "cancel", "redrive", "signal"}},
	} {
		if got := c.schema.strings("enum"); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, the code has %v", name, got, c.want)
		}
	}
	for name, c := range map[string]struct {
		got  any
		want float64
	}{
		"messages":        {property.at("input", "properties", "messages")["maxItems"], MaxMessages},
		"metadata":        {property.at("metadata")["maxProperties"], MaxMetadata},
		"metadata key":    {property.at("metadata", "propertyNames")["maxLength"], MaxMetadataKey},
		"metadata value":  {property.at("metadata", "additionalProperties")["maxLength"], MaxMetadataValue},
		"idempotency key": {property.at("idempotency_key")["maxLength"], MaxIdempotencyKey},
		"conversation id": {property.at("conversation_id")["maxLength"], MaxConversationID},
		"tracestate":      {property.at("tracestate")["maxLength"], MaxTracestate},
		"traceparent":     {property.at("traceparent")["maxLength"], MaxTraceparent},
		"timeout":         {property.at("timeout_seconds")["maximum"], MaxTimeoutSeconds},
		"start timeout":   {property.at("start_timeout_seconds")["maximum"], MaxTimeoutSeconds},
		"max attempts":    {property.at("max_attempts")["maximum"], MaxMaxAttempts},
		"event type":      {event.at("properties", "type")["maxLength"], maxEventType},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, the code has %v", name, c.got, c.want)
		}
	}
	for sentence, want := range map[string]string{
		submission["description"].(string):                                                   fmt.Sprintf("at most %d bytes", MaxSubmission),
		submission["description"].(string) + " ":                                             fmt.Sprintf("nesting of at most %d levels", MaxDepth),
		property.at("timeout_seconds")["description"].(string):                               fmt.Sprintf("else %d.", DefaultTimeout),
		property.at("max_attempts")["description"].(string):                                  fmt.Sprintf("else %d.", DefaultMaxAttempts),
		event.at("$defs", "state.checkpoint", "properties", "state")["description"].(string): fmt.Sprintf("at most %d bytes", MaxInlineState),
	} {
		if !strings.Contains(sentence, want) {
			t.Errorf("%q does not say %q", sentence, want)
		}
	}
}

// The patterns of the schemas, as Go regular expressions, and the hand-written
// checks say the same of any string.
func TestSchemaPatternsAgreeWithTheChecks(t *testing.T) {
	submission, event := readSchema(t, "submission.schema.json"), readSchema(t, "event.schema.json")
	letters := rapid.OneOf(
		rapid.StringOfN(rapid.SampledFrom([]rune("abfz019AFZ_-.:é \n")), 0, 8, -1),
		rapid.StringOfN(rapid.SampledFrom([]rune("az09_-.")), 0, 135, -1), // mostly good, about as long as is allowed
		rapid.StringOfN(rapid.SampledFrom([]rune("az09_-")), 60, 66, -1),
	)
	near := rapid.Custom(func(t *rapid.T) string { // a run id with at most one character changed
		id := []byte(testRun)
		if i := rapid.IntRange(0, len(id)).Draw(t, "at"); i < len(id) {
			id[i] = rapid.SampledFrom([]byte("0af-gA ")).Draw(t, "to")
		}
		return string(id)
	})
	for name, c := range map[string]struct {
		schema schema
		check  func(string) error
		gen    *rapid.Generator[string]
	}{
		"run_id":          {submission.at("properties", "run_id"), CheckRunID, rapid.OneOf(near, letters)},
		"event run_id":    {event.at("properties", "run_id"), CheckRunID, rapid.OneOf(near, letters)},
		"agent_key":       {submission.at("properties", "agent_key"), CheckAgentKey, letters},
		"event agent_key": {event.at("properties", "agent_key"), checkKnownAgentKey, letters},
		"conversation_id": {submission.at("properties", "conversation_id"), checkConversationID, letters},
		"worker_id":       {event.at("properties", "worker_id"), CheckWorkerID, letters},
		"type":            {event.at("properties", "type"), checkEventType, letters},
	} {
		t.Run(name, func(t *testing.T) {
			form := regexp.MustCompile(c.schema["pattern"].(string))
			rapid.Check(t, func(t *rapid.T) {
				s := c.gen.Draw(t, "s")
				if ok := c.check(s) == nil; ok != form.MatchString(s) {
					t.Fatalf("%q: the check says %t, the pattern %t", s, ok, !ok)
				}
			})
		})
	}
}
