#include "CColumns.h"
