#include "live/live_read.h"
bool sx_live_read_disabled = false;
void sx_live_read_init(void) {}
