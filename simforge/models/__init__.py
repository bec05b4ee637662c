"""Models: one contract, several providers, and everything between a dialogue and a reply.

`contract` is what a client of a model must do; `providers/` has one file for each provider;
`calls` renders a request and asks for it, through the `ledger` (nothing is paid for twice), the
`budget` and the `rate_limits`.
"""
