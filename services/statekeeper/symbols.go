package statekeeper

// symbol is an interned string: two symbols of one table are the same pointer
// if and only if they are the same string.
type symbol struct {
	text string
	refs int
}

// symbols interns the strings that many runs share, and forgets a string with
// the last run that has it. The zero value is empty. The index's lock guards it.
type symbols struct {
	table map[string]*symbol
}

// take returns the symbol of text, one reference more; nil for "".
func (t *symbols) take(text string) *symbol {
	if text == "" {
		return nil
	}
	s, ok := t.table[text]
	if !ok {
		if t.table == nil {
			t.table = make(map[string]*symbol)
		}
		s = &symbol{text: text}
		t.table[text] = s
	}
	s.refs++
	return s
}

// drop gives a reference back.
func (t *symbols) drop(s *symbol) {
	if s == nil {
		return
	}
	if s.refs--; s.refs == 0 {
		delete(t.table, s.text)
	}
}

// find returns the symbol of text if any run has it.
func (t *symbols) find(text string) (*symbol, bool) {
	s, ok := t.table[text]
	return s, ok
}

// string returns the text, "" for nil.
func (s *symbol) string() string {
	if s == nil {
		return ""
	}
	return s.text
}
