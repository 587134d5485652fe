"""Device models: pure state machines. State is a Struct, time is an argument, no instruction touches the real machine."""
