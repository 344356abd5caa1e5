// Command tally hosts an agent that adds up a file of sales, batch by batch. It
// saves where it is after each batch, and says how far it is.
package main

import (
	"longhaul/pkg/agent"
	"longhaul/services/worker"
)

func main() {
	worker.Main(worker.Config{Agents: []agent.Agent{tally}, Concurrency: 4})
}
