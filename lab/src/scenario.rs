//! One behaviour a file: objects, config, changes, probes with their expected outcome; and the runner.
