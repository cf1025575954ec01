"""What runs at launch time: machine code, native threads, arguments."""
