"""The store of many machines: answers, budgets, paces and leases in PostgreSQL (extra `postgres`).

Every operation is one statement, which is one transaction: no lock is ever held while a machine is
waited for, and one that dies leaves nothing half done. Every statement may be made twice with the
effect of one, so that it is made again when the connection was lost before its outcome was known.
Time is the server's (`smoothapi.moment()`), and a dead machine is found by its lease.
"""

from smoothapi.store.postgres.home import PostgresHome

__all__ = ["PostgresHome"]
