package remote

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// Secret says where a secret is: in a variable of the worker's environment or
// in a file. The zero value is no secret.
type Secret struct {
	// Env names the variable.
	Env string
	// File names the file. It is read at every use, so that it may be exchanged;
	// white space around the secret is cut off.
	File string
}

// Read returns the secret, "" if there is none to be read.
func (s Secret) Read() (string, error) {
	switch {
	case s.Env != "" && s.File != "":
		return "", errors.New("must be in the environment or in a file, not in both")
	case s.Env != "":
		if value := os.Getenv(s.Env); value != "" {
			return value, nil
		}
		return "", fmt.Errorf("the environment has no %s", s.Env)
	case s.File != "":
		data, err := os.ReadFile(s.File)
		if err != nil {
			return "", err
		}
		if value := strings.TrimSpace(string(data)); value != "" {
			return value, nil
		}
		return "", fmt.Errorf("%s is empty", s.File)
	}
	return "", nil
}

// Hide returns text without the secret: services quote what they were sent.
func Hide(text, secret string) string {
	if secret == "" {
		return text
	}
	return strings.ReplaceAll(text, secret, "***")
}

// CheckURL says what is wrong with the address of a service, nil if nothing is.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("must be an address such as https://example.org/v1")
	case u.User != nil:
		return errors.New("must not hold a password: name one in the environment or in a file")
	case u.Fragment != "":
		return errors.New("must not have a fragment (#…)")
	}
	return nil
}
