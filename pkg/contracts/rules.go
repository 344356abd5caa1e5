package contracts

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// The rules of single values. Each says what is wrong after the field's name:
// "must be …".

func checkIdempotencyKey(s string) error {
	if err := checkLength(s, 1, MaxIdempotencyKey); err != nil {
		return err
	}
	return mustBe(!strings.ContainsFunc(s, unicode.IsControl), "without control characters", s)
}

func checkConversationID(s string) error {
	return mustBe(isWord(s, MaxConversationID, "._:-"),
		"1 to 128 of A-Z, a-z, 0-9, dot, _, : and -, beginning with a letter or digit", s)
}

// checkTraceparent and checkTracestate let pass what is none, too: nobody's run is to fail for it.
func checkTraceparent(s string) error { return checkLength(s, 0, MaxTraceparent) }
func checkTracestate(s string) error  { return checkLength(s, 0, MaxTracestate) }

func checkMetadataValue(s string) error { return checkLength(s, 0, MaxMetadataValue) }

func checkReason(s string) error { return checkLength(s, 0, MaxReason) }

func checkSignalName(s string) error {
	if err := checkLength(s, 1, MaxSignalName); err != nil {
		return err
	}
	return mustBe(!strings.ContainsFunc(s, unicode.IsControl) && s != AnySignal, "a name without control characters, other than *", s)
}

func checkName(s string) error {
	if s == "" {
		return errors.New("must not be empty")
	}
	return nil
}

func checkLength(s string, lowest, highest int) error {
	if len(s) >= lowest && len(s) <= highest {
		return nil
	}
	return fmt.Errorf("must be %d to %d bytes, not %d", lowest, highest, len(s))
}

func checkPriority(s string) error { return mustBe(Priority(s).Valid(), "high, normal or low", s) }

func checkOnConflict(s string) error {
	return mustBe(slices.Contains([]OnConflict{OnConflictEnqueue, OnConflictReject, OnConflictInterrupt}, OnConflict(s)), "enqueue, reject or interrupt", s)
}

func checkStatus(s string) error {
	return mustBe(Status(s).Valid(), "a status such as pending or running", s)
}

func checkVisibility(s string) error {
	return mustBe(Visibility(s).Valid(), "internal, debug or user", s)
}

func checkEventType(s string) error {
	return mustBe(EventType(s).Valid(), "dotted words in lower case, such as tool.call", s)
}

func checkHolderOp(s string) error {
	return mustBe(slices.Contains([]HolderOp{HolderPing, HolderHolds, HolderCancel}, HolderOp(s)), "ping, holds or cancel", s)
}

func checkRole(s string) error {
	return mustBe(slices.Contains([]string{RoleSystem, RoleDeveloper, RoleUser, RoleAssistant, RoleTool}, s), "system, developer, user, assistant or tool", s)
}

// checkKnownAgentKey is CheckAgentKey where there may be none: of a filter, and
// of a rejected run, whose agent may not be known.
func checkKnownAgentKey(s string) error {
	if s == "" {
		return nil
	}
	return CheckAgentKey(s)
}
