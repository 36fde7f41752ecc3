"""Where artifacts come from: publishers' keys, and what they signed about a version. What attestations are is in
services/common/attesting.py, since who downloads an artifact verifies them, too."""
