package contracts

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The rules of single values. Each says what is wrong after the field's name:
// "must be …".

func checkIdempotencyKey(s string) error {
	if err := checkLength(s, 1, MaxIdempotencyKey); err != nil {
		return err
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("must be without control characters, not %s", quote(s))
	}
	return nil
}

// checkConversationID: letters, digits, dot, underscore, colon and hyphen,
// beginning with a letter or digit.
func checkConversationID(s string) error {
	if s != "" && len(s) <= MaxConversationID && isAlphanumeric(s[0]) &&
		strings.IndexFunc(s, func(r rune) bool {
			return r >= utf8.RuneSelf || !isAlphanumeric(byte(r)) && !strings.ContainsRune("._:-", r)
		}) < 0 {
		return nil
	}
	return fmt.Errorf("must be 1 to %d of A-Z, a-z, 0-9, dot, _, : and -, beginning with a letter or digit, not %s", MaxConversationID, quote(s))
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func checkMetadataValue(s string) error { return checkLength(s, 0, MaxMetadataValue) }

func checkReason(s string) error { return checkLength(s, 0, MaxReason) }

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
	if lowest == 0 {
		return fmt.Errorf("must be at most %d bytes, not %d", highest, len(s))
	}
	return fmt.Errorf("must be %d to %d bytes, not %d", lowest, highest, len(s))
}

func checkPriority(s string) error {
	if Priority(s).Valid() {
		return nil
	}
	return fmt.Errorf("must be high, normal or low, not %s", quote(s))
}

func checkStatus(s string) error {
	if Status(s).Valid() {
		return nil
	}
	return fmt.Errorf("must be a status such as pending or running, not %s", quote(s))
}

func checkVisibility(s string) error {
	if Visibility(s).Valid() {
		return nil
	}
	return fmt.Errorf("must be internal, debug or user, not %s", quote(s))
}

func checkEventType(s string) error {
	if EventType(s).Valid() {
		return nil
	}
	return fmt.Errorf("must be dotted words in lower case, such as tool.call, not %s", quote(s))
}

func checkHolderOp(s string) error {
	switch HolderOp(s) {
	case HolderPing, HolderHolds, HolderCancel:
		return nil
	}
	return fmt.Errorf("must be ping, holds or cancel, not %s", quote(s))
}

func checkRole(s string) error {
	switch s {
	case RoleSystem, RoleDeveloper, RoleUser, RoleAssistant, RoleTool:
		return nil
	}
	return fmt.Errorf("must be system, developer, user, assistant or tool, not %s", quote(s))
}

// checkKnownAgentKey lets an event have none: that of a rejected run may not be known.
func checkKnownAgentKey(s string) error {
	if s == "" {
		return nil
	}
	return CheckAgentKey(s)
}
