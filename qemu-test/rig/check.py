# SPDX-License-Identifier: GPL-2.0
"""A check that failed, as opposed to a host that was lost or a rig that broke."""


class CheckFailed(Exception):
    pass


def check(holds, otherwise):
    """Fails the scenario with a sentence unless the condition holds."""
    if not holds:
        raise CheckFailed(otherwise)
