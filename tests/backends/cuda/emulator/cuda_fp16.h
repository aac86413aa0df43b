// Stands for the toolkit's header: everything is in kernel.h, which comes first.
