"""The world of the embedded model `shapes`: what its clips show, how they are worded, and a judge of both."""
