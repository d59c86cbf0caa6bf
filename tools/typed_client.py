"""Five lines of somebody's program: mypy must see npgemma's types in them, and refuse a mistake (.ci/run asks it)."""

import npgemma

model: npgemma.Model = npgemma.load()
text: str = npgemma.generate(model, None, "caption en", max_new_tokens=3).text
shapes: dict[str, tuple[int, ...]] = {name: x.shape for name, x in npgemma.trace(model, None, "caption en").items()}
best: float = max(score.total for score in npgemma.score(model, None, "caption en", ["a cat", "a dog"]).answers)
print(npgemma.__version__, text, len(shapes), best)
