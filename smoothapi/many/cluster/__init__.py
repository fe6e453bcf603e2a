"""The work on many photos, shared by machines: Ray carries it, the store holds what they share.

`Cluster` says where; `team` is the side that gives out tasks, `workplace` the one that does them,
`denoising` the machines with the network, `recipe` what a machine is told and what it must agree
on. Ray is imported nowhere but in `connection`, and only when a cluster is used.
"""

from smoothapi.many.cluster.connection import Cluster
from smoothapi.many.cluster.recipe import SessionRecipe, recipe_of, sendable
from smoothapi.many.cluster.team import Team, TeamStop, open_team
from smoothapi.many.cluster.workplace import Duty, Hands, Note, open_session_here

__all__ = [
    "Cluster",
    "Duty",
    "Hands",
    "Note",
    "SessionRecipe",
    "Team",
    "TeamStop",
    "open_session_here",
    "open_team",
    "recipe_of",
    "sendable",
]
