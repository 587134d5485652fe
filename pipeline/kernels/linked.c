#include <stdint.h>
#include <stddef.h>
struct node{struct node*next;uint64_t value;};
struct branch{struct branch*left,*right;uint64_t key;};
/* reverse a list in place, then walk it; *head is its first node */
uint64_t list_turn(struct node**head){
 struct node*before=0,*n=*head;
 while(n){struct node*next=n->next;n->next=before;before=n;n=next;}
 *head=before;
 uint64_t sum=0;
 for(n=before;n;n=n->next){if(n->value&1)sum+=n->value;else sum^=n->value>>1;}
 return sum;
}
/* look keys up in a binary tree: how many are there, and the steps taken in the upper half */
uint64_t tree_find(struct branch*root,const uint64_t*keys,size_t n){
 uint64_t found=0,steps=0;
 for(size_t i=0;i<n;i++){
  struct branch*b=root;uint64_t key=keys[i];
  while(b){steps++;if(b->key==key){found++;break;}b=key<b->key?b->left:b->right;}
 }
 return steps<<32|found;
}
