// abort
