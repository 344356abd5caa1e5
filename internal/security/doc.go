// Package security makes what a secured deployment needs: keys, certificates
// and the broker's configuration, in which every role has a user of its own
// with the least grants that it can work with.
//
// The map:
//
//   - plan.go is what a deployment is asked to be: tenants, agent sets, hosts.
//   - roles.go says what each role may do, and why; accounts.go which account
//     it lives in, and what passes between accounts.
//   - conf.go renders the broker's configuration from nats.conf.tmpl, the one
//     source of the shipped files in deploy and of what init generates.
//   - keys.go and certs.go make key material; init.go writes all of it to a
//     directory, and never over anything; grant.go adds the right to see one run.
//
// The wall between accounts is load-bearing. A broker answers a request on
// whatever subject the requester names as the reply, past its permissions: a
// user who shares an account with the streams, and may ask for no more than one
// message, can have the "not found" delivered to $JS.API.STREAM.DELETE.<stream>.
// So nobody but Longhaul's own services and the operator lives where the streams
// are; all others reach them by imports, through which a reply subject means
// something in the asker's own account alone, where there are no streams.
package security
