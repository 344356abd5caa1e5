// Command tally hosts an agent that adds up a file of sales, batch by batch. It
// saves where it is after each batch, and says how far it is.
package main

import (
	"longhaul/pkg/agent"
	"longhaul/pkg/host"
)

func main() {
	host.Main(host.Config{Agents: []agent.Agent{tally}, Concurrency: 4})
}
