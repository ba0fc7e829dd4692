/*
 * debug_point.h
 *	  Named points at which a test can end, kill or hold a process.
 *
 * Compiled in by make DEBUG_POINTS=1 alone (the campaign of doc/reliability.md);
 * otherwise a point is nothing at all.  Orders come from a file in the data
 * directory: see debug_point.c.
 */
#ifndef OV_DEBUG_POINT_H
#define OV_DEBUG_POINT_H

#ifdef OV_DEBUG_POINTS
/* The point's name is the two strings, one after the other. */
extern void ov_debug_point(const char *name, const char *more);
#define OV_POINT(name) ov_debug_point(name, "")
#define OV_POINT_OF(name, more) ov_debug_point(name, more)
#else
#define OV_POINT(name) ((void) 0)
#define OV_POINT_OF(name, more) ((void) 0)
#endif

#endif							/* OV_DEBUG_POINT_H */
