package contracts

// MaxRequest bounds a request to the API, in bytes.
const MaxRequest = 256 << 10

// DecodeGet reads a request to the endpoint get.
func DecodeGet(data []byte) (q GetRequest, f Faults) {
	f = decodeCommand(data, MaxRequest, func(d *document) []field {
		return []field{{"run_id", required, func(n int32) { q.RunID = d.str(n, CheckRunID) }}}
	})
	return q, f
}

// DecodeList reads a request to the endpoint list. What the cursor says is for
// its maker to judge.
func DecodeList(data []byte) (q ListRequest, f Faults) {
	f = decodeCommand(data, MaxRequest, func(d *document) []field {
		return []field{
			{"status", optional, func(n int32) { q.Status = elements(d, n, d.status) }},
			{"agent_key", optional, func(n int32) { q.AgentKey = d.str(n, checkKnownAgentKey) }},
			{"conversation_id", optional, func(n int32) { q.ConversationID = d.str(n, nil) }},
			{"metadata", optional, func(n int32) { q.Metadata = d.metadata(n) }},
			{"created_after", optional, func(n int32) { q.CreatedAfter = d.instant(n) }},
			{"created_before", optional, func(n int32) { q.CreatedBefore = d.instant(n) }},
			{"limit", optional, func(n int32) { q.Limit = int(d.integer(n, 0, MaxListLimit)) }},
			{"cursor", optional, func(n int32) { q.Cursor = d.str(n, nil) }},
		}
	})
	return q, f
}
