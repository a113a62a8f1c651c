// The one way to include libfuse: with the version of its interface we are written for.
#pragma once

#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
