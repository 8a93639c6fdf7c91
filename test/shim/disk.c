/*
 * test/shim/disk.c
 *		Disks that a test can fill and free, for the server that is started with it in LD_PRELOAD.
 *
 * The file that SHIM_DISK names holds one byte, a sum of: 1 the data folder is full, 2 shared
 * memory (/dev/shm) is, 4 pg_wal is.  It is mapped, so that a change reaches all processes at once.
 * As on a real disk, what would make a file longer fails with ENOSPC, and what lies within it is written.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static volatile unsigned char *full;
static unsigned char none = 0;

static unsigned char
which(void)
{
	if (full == NULL)
	{
		const char *path = getenv("SHIM_DISK");
		int			fd = path ? open(path, O_RDONLY) : -1;
		void	   *map = fd >= 0 ? mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

		if (fd >= 0)
			close(fd);
		full = map == MAP_FAILED ? &none : map;
	}
	return *full;
}

/* would the file, on a disk that is full, grow beyond `end`? */
static int
too_long(int fd, off_t end)
{
	unsigned char disks = which();
	char		link[64];
	char		path[1024];
	ssize_t		length;
	struct stat st;
	int			disk;

	if (disks == 0)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path) - 1);
	if (length < 0)
		return 0;
	path[length] = '\0';
	disk = strncmp(path, "/dev/shm/", 9) == 0 ? 2 :
		strstr(path, "/pgdata/pg_wal/") ? 4 :
		strstr(path, "/pgdata/") ? 1 : 0;
	if ((disks & disk) == 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return 0;
	/* the server makes such a file long first, and asks for memory then */
	return end > (disk == 2 ? st.st_blocks * 512 : st.st_size);
}

#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))
#define REFUSE_IF_LONGER(fd, end) do { if (too_long(fd, end)) { errno = ENOSPC; return -1; } } while (0)

ssize_t
write(int fd, const void *buf, size_t n)
{
	static __typeof__(&write) real;

	if (which() != 0)
		REFUSE_IF_LONGER(fd, lseek(fd, 0, SEEK_CUR) + (off_t) n);
	if (real == NULL)
		real = REAL(write);
	return real(fd, buf, n);
}

ssize_t
pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	static __typeof__(&pwrite) real;

	REFUSE_IF_LONGER(fd, offset + (off_t) n);
	if (real == NULL)
		real = REAL(pwrite);
	return real(fd, buf, n, offset);
}

ssize_t
pwrite64(int fd, const void *buf, size_t n, off64_t offset)
{
	return pwrite(fd, buf, n, offset);
}

ssize_t
pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
	static __typeof__(&pwritev) real;
	off_t		end = offset;

	for (int i = 0; i < n; i++)
		end += iov[i].iov_len;
	REFUSE_IF_LONGER(fd, end);
	if (real == NULL)
		real = REAL(pwritev);
	return real(fd, iov, n, offset);
}

ssize_t
pwritev64(int fd, const struct iovec *iov, int n, off64_t offset)
{
	return pwritev(fd, iov, n, offset);
}

/* unlike the others it returns the error */
int
posix_fallocate(int fd, off_t offset, off_t length)
{
	static __typeof__(&posix_fallocate) real;

	if (too_long(fd, offset + length))
		return ENOSPC;
	if (real == NULL)
		real = REAL(posix_fallocate);
	return real(fd, offset, length);
}

int
posix_fallocate64(int fd, off64_t offset, off64_t length)
{
	return posix_fallocate(fd, offset, length);
}
