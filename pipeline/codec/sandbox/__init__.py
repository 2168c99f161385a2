"""What a codec worker gives up before it sees the first image: files, sockets, processes, privileges, more memory."""
