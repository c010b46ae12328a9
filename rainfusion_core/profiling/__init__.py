"""Where the time of a step goes: parts, phases of the sparse call, stages of a render, predictions."""
