#!/usr/bin/env python3
"""A harmless script."""
print("GNU is not Unix")
