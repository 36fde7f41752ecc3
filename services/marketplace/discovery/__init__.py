"""Ways to models other than words: categories, leaderboards, comparison, recommendations, collections, favourites,
and a feed of publishers that somebody follows. Figures are those that were measured; who
has none is not on the board."""
