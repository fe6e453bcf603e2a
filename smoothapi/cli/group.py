"""A group of commands that says which one may have been meant."""

from __future__ import annotations

import click


class Group(click.Group):
    """`smoothapi certfy` is answered with certify."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name, or say which are near it."""
        name, known = args[0], self.list_commands(ctx)
        if name[:1].isalnum() and name not in known and not ctx.resilient_parsing:
            from difflib import get_close_matches  # noqa: PLC0415  for errors alone

            near = get_close_matches(name.lower(), known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}."
            ctx.fail(f"{ctx.command_path} has no command {name!r}. {hint}")
        return super().resolve_command(ctx, args)
