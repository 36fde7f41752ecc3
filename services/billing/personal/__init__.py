"""What billing knows of a person: written down, and, but for the books, which the law keeps, erased. The books name
organisations by ids, and nothing tells any more whose they were."""
