# SPDX-License-Identifier: GPL-2.0
"""The rig: boots a host under test, loses it on purpose, and says what became of its guests."""
