"""The audit log: what the services report of sensitive acts, chained by organisation, signed, dropped when it is old.
What is a sensitive act is said by the contract; the form of the chain is in `services.common.audit_chain`."""
