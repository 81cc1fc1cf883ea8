#include "CColumns.h"

// Read by jemalloc, which release builds are linked with, when the process starts: jemalloc(3), TUNING.
//
// Panes come and go by the thousand, and those of a thousand rules are a hundred megabytes that no cache holds. In huge
// pages they take fewer faults to get and fewer steps to find. Freed memory is kept for a minute, the length of most panes:
// faulting pages in anew costs more than filling them.
const char *malloc_conf = "thp:always,dirty_decay_ms:60000";
