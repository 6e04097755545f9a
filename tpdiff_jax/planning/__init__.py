"""What a compiled program costs on a machine that is not here: chips, memory, FLOPs, messages.

    chips -> topology              devices to compile for, and what their data sheets promise
    program_flops                  matrix-product FLOPs that a traced program executes
    hlo_text -> hlo_loops          what a compiled program executes, loops multiplied out
    collectives, memory_traffic    its messages between chips, its bytes to and from memory
    program_cost -> roofline       one program's figures, and the least time they allow
    batch_search                   the largest batch that fits, in few compilations

The figures are the compiler's and the data sheets': bounds, not measurements.
"""
