#include "soft_half.h"
