"""From lowered functions to one C function: memory plan, driver, object file."""
