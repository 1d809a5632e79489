"""Model files written: what each tensor becomes, in which container, and where the file may go."""
