package security

import (
	"fmt"

	"github.com/nats-io/nkeys"
)

// pair is a user's key.
type pair struct {
	public string
	seed   []byte // secret
}

func newPair() (pair, error) {
	kp, err := nkeys.CreateUser()
	if err != nil {
		return pair{}, fmt.Errorf("make a key: %w", err)
	}
	defer kp.Wipe()
	seed, err := kp.Seed()
	if err != nil {
		return pair{}, fmt.Errorf("make a key: %w", err)
	}
	public, err := kp.PublicKey()
	if err != nil {
		return pair{}, fmt.Errorf("make a key: %w", err)
	}
	return pair{public, append(seed, '\n')}, nil
}
